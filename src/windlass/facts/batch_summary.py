"""How a batch ended: rows answered, rows refused, and what the run measured."""

from dataclasses import dataclass

from windlass.facts.run_report import RunReport

_LINES_NAMED = 10


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """`refused` holds the line numbers of the bad rows; `report` is None when no row was good, so nothing ran."""

    rows: int
    refused: tuple[int, ...]
    report: RunReport | None

    @property
    def answered(self) -> int:
        """Rows with an answer."""
        return self.rows - len(self.refused)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "rows": self.rows,
            "answered": self.answered,
            "refused_lines": list(self.refused),
            "report": self.report.as_dict() if self.report else None,
        }

    def lines(self) -> list[str]:
        """For people."""
        return [f"rows     {self.answered} of {self.rows} answered{self._refusals()}"] + (
            self.report.lines() if self.report else []
        )

    def _refusals(self) -> str:
        if not self.refused:
            return ""
        named = ", ".join(map(str, self.refused[:_LINES_NAMED]))
        word = "line" if len(self.refused) == 1 else "lines"
        more = ", ..." if len(self.refused) > _LINES_NAMED else ""
        return f", {len(self.refused)} refused ({word} {named}{more}); their rows say why"
