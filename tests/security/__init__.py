"""What was sent by others can do nothing: code, links, odd entries, sizes, changes, texts."""
