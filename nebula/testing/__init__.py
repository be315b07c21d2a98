"""What tests of Nebula, and of programs on Nebula, may use: a simulated world, and real processes to hurt."""
