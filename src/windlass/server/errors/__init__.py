"""What goes wrong with a request, in OpenAI's form."""
