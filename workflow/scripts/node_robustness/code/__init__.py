"""Python code that is read and not run: what it means, what it imports, what it defines."""
