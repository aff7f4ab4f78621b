"""Parts of `synthetic_people.py`: bodies, poses, clothes, scenes, rendering and labels."""
