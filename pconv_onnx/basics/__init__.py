"""What all other packages use: errors, arguments, progress, places on disk, and the choices that users have."""
