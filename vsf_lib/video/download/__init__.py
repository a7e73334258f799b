"""Models and LoRAs from the hub, fetched by a process of its own."""
