"""Tasks to tune and to copy: each is a LightningModule and a LightningDataModule, and knows nothing of tuning."""
