//! A connection from the mesh.
