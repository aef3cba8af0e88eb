"""What `reg-engine explore` shows: pure functions from choices to pictures and numbers, and the
page over them. `mixture`, `digits` and `models` are the tabs; `page` and `serve` need NiceGUI."""
