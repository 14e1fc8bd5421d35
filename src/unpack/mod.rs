//! Puts the layers of an image into the layout of a repository.
