"""What a model costs: assumptions with their sources, formulas as values, and what follows from them with its range.

assumption, formula, sheet     what is known, what follows from it, and the arithmetic line by line
uncertainty                    ranges by drawing assumptions, and which of them matters most
prices, assumption_sets        the data files: machines, APIs, models, operation, the analysis of January 2023
inference                      speeds, from the planner's forecast
job, serving, search, training, trajectory    one question each
"""
