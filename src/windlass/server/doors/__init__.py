"""Who may come in, and with how much: names, keys, shares and sizes."""
