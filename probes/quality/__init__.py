"""Layer quality: label-free diagnostics of every layer beside measured quality, and which of them to trust."""
