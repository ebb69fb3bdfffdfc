"""A GGUF file as a drafter, computed by llama.cpp: for laptops and boards, without PyTorch. See docs/llama.md."""
