"""The certificate authority: checks the site credential, decides, signs. Proof in, one certificate out."""
