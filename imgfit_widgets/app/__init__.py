"""What a person starts: the command line, the served workbench and the demo."""
