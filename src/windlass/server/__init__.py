"""The door for programs: OpenAI's interface over a running model, and the page that shows it at work."""
