"""The jobs people come for, one module each: batch files, benchmarks, checkups and the demonstration."""
