"""The methods that come with compress: one file each, found through entry points like anyone's."""
