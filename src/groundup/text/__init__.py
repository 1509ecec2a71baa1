"""Text: files, catalog names and the built-in harbor world in; documents, in pieces, out."""
