"""Seven models of contract 2 on made-up data whose answers are known, trained in seconds and served."""
