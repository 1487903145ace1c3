"""What the commands share: what a user asked for, checked before anything is loaded, and how a command ends."""
