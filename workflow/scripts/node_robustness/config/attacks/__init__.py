"""The settings of every attack method: one file and one class a method, named like the method."""
