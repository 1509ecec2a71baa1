"""GGUF, the one-file format of llama.cpp and Ollama: keys and names both ways, reading, vocabularies, writing."""
