"""The command line: one file a verb. A verb turns flags into values, hands them to a job and shows what comes back."""
