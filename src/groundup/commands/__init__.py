"""One short file per command that is not a stage: settings in, a `Result` out, and `show` to print it for people."""
