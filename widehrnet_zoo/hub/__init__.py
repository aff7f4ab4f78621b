"""Publishing models and getting them: folders and the Hugging Face Hub."""

from .saving import push_to_hub, save_pretrained

__all__ = ['push_to_hub', 'save_pretrained']
