"""A language model as judge: what it is asked, where it is, how it works, and how far it can be relied on."""
