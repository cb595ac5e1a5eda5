"""Where frames come from: live interfaces and savefiles, both filling the same FrameBatch."""
