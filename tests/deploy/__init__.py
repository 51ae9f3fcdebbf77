"""What stands under deploy/ fits the code and the tools that read it."""
