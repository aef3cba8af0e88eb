"""Doors for other libraries' users; each library is imported only where its door is opened."""
