"""How long tests wait for another process."""

# Seconds. Ends a hang; says nothing about speed: on a machine that runs seven
# times as many programs as it has cores, two training steps took 220 s.
PATIENCE = 600
