"""``python -m cskt``: the commands. Nothing imports this room."""
