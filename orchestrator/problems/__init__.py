"""Problems that a user brings as files: read, shuffled, and written as prompts."""
