"""One answer for a machine: text, token ids, why it ended, and the report of the run so far."""

from windlass.facts.completion import RequestOutput
from windlass.facts.run_report import RunReport


def answer_dict(answer: RequestOutput, report: RunReport | None) -> dict[str, object]:
    """What `--json` writes of an answer; one that was stopped by hand has no finish reason."""
    output = answer.outputs[0]
    return {
        "prompt_token_ids": list(answer.prompt_token_ids),
        "text": output.text,
        "token_ids": list(output.token_ids),
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
        "report": report.as_dict() if report is not None else None,
    }
