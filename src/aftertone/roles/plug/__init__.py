"""Pull the plug: whether a real disk keeps what it confirmed, with a second machine as the witness.

Owns: the load, the witness, their conversation, the verdict. Refuses to know: the machine's own data folder.

Theory of operation: on the machine under test `load` writes with the real journal, blobs and catalog, and each time one of
them says that something is durable, `link` tells the `witness` on another machine. Somebody pulls the plug. After the boot
`trial` asks the witness what had been confirmed, and `evidence` looks for it: all content follows from the run's name and a
number, so it can be made again and compared. What was durable but did not reach the witness is not asked for, so a slow
network or a dying one makes the test weaker, never wrong. The words between the two machines are in `protocol`.
"""
