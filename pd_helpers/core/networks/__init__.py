"""What the networks of others are like: what they take, which layers they have, and how these read and write."""
