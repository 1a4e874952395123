"""What a peer does for others: each role does its kind of leg, and says what it cannot do."""
