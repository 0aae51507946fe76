"""What runs inside one process: plain classes and the pure mathematics they need."""
