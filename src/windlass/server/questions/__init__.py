"""What both ways of asking share: how tokens are drawn, how answers grow and how they are sent."""
