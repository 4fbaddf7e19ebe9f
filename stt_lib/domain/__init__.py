"""Records and rules of transcription: pure, without I/O, threads or clock."""
