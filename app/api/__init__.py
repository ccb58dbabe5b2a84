"""What the admin API says and takes: the shapes that server and client share."""
