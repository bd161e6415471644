"""The console: the pages on which buyers find, try, buy and pay for models."""
