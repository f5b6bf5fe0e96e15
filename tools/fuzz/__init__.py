"""Damaged models through the command line: each must end in an answer or in one clear line."""
