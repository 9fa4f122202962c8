"""The media plane: all calls' sound as rows of arrays, moved on by one tick."""
