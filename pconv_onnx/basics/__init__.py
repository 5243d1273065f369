"""What every room stands on: errors, arguments, progress, places on disk, and the choices that users have."""
