"""The command `tuningstudy`: the same manifest without a cluster."""
