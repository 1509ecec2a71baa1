"""Models and runs on disk: folders that anyone can open, that appear whole, and that notice every changed byte."""
