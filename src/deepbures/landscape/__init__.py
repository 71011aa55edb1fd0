"""Critical points, Hessians, and the search for critical points."""
