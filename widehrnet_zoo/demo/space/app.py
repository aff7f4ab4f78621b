"""The demo as a Hugging Face Space; `python app.py` serves the same page on this machine."""

from widehrnet_zoo.demo import launch

if __name__ == '__main__':
    launch()
